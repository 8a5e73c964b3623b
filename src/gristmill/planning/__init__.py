"""What a recipe will take: tokens and epochs, operations, hours, memory, disk."""
