"""Operations on arrays that the models and scores are made of."""
