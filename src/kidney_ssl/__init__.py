"""Which unsupervised pretraining or augmentation helps kidney-tumor classification on CT."""
