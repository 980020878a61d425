"""The visual Turing test for radiologists."""
