"""What lies on the disk: the commit protocol, the store of artefacts and its locks, identity, JSON."""
