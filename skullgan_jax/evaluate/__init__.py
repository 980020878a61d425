"""Whether synthetic slices are skulls: metrics, classifiers, memorisation, a visual Turing test."""
