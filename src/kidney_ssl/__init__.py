"""Which unsupervised pretraining or augmentation helps kidney-tumour classification on CT."""
