"""Many runs as one compiled program."""
