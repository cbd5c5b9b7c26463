"""Many runs with different settings, in one table."""
