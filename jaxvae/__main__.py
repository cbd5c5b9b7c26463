"""`python -m jaxvae` is the command `jaxvae`."""

import sys

from jaxvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
