"""What stands outside the chains: roles and databases, the link's address and passwords, the accounts admitted."""
