"""The paper's figures and tables, one module each; what they produced is kept in results/."""
