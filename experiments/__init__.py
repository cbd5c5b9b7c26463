"""The paper's figures and tables, one module each. Their results are in results/ and README.md."""

from jaxvae.cli import accelerators

accelerators.set_up()
