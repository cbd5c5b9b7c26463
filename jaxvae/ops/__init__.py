"""Array operations of the models and scores."""
