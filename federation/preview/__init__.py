"""What a migration locks, rewrites, makes and drops, told before it runs."""
