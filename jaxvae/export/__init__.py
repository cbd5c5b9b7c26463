"""Trained runs as a folder of standard files, which needs no jaxvae to be used."""
