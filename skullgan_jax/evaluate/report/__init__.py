"""What is written of a judgement: a page, figures, a model card."""
