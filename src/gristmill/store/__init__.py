"""What lies on the disk: the commit protocol, identity, JSON."""
