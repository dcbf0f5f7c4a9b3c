"""The study's vocabulary: classes, mask values, splits and regions.

Code and files call the organ kidney, whichever organ it is. The report uses the study's own words, see
`report.names.spoken`.
"""

from types import MappingProxyType

# Classes of labelled slices; the label is 1 for tumor. They are sampled 2:1:1.
CLASSES = TUMOR, KIDNEY, BACKGROUND = ("tumor", "kidney", "background")
NEGATIVES = (KIDNEY, BACKGROUND)
THRESHOLD = 0.5  # a slice is called tumor from this probability on (Eq. 8-9 of the thesis)
SMALL = "small"  # a slice with less tumor than the threshold: only in the test set at natural prevalence

# Values of a mask's pixels, as in KiTS23; 0 is everything else. A cyst is not a tumor: it never makes a slice positive.
MASK_VALUES = {"kidney": 1, "tumor": 2, "cyst": 3}
MASK_KIDNEY, MASK_TUMOR, MASK_CYST = MASK_VALUES.values()
# Possible meaning of a label file's value -> the value in our masks.
MEANINGS = {"organ": MASK_KIDNEY, "tumor": MASK_TUMOR, "cyst": MASK_CYST, "none": 0}
KITS_LABELS = MappingProxyType({1: "organ", 2: "tumor", 3: "cyst"})

SPLITS = TRAIN, VALIDATION, TEST = ("train", "validation", "test")
LABELLED = (TRAIN, VALIDATION)  # a label budget contains a share of their cases
EVALUATED = (VALIDATION, TEST)  # a fine-tuned network predicts their slices

# Rectangles around the organ: of a pair, as seen in the image (left is the patient's right), or of a single organ.
REGIONS = ("left", "right")
SINGLE = "organ"
