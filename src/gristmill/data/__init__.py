"""Documents and their accounts: readers, writers, the guard around hostile input, ledgers, task packs."""
