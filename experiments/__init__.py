"""The paper's figures and tables, one module each. Their results are in results/ and README.md."""
