"""What the page says of its figures, its terms and its limits."""

from skullgan_jax.evaluate.measures import compare

SAMPLES = (
    "Drawn at random, none picked; 0 HU is black, 2000 HU white; shown are the rows in which the reals have bone. "
    "Idealised skulls are the control: smooth shells, one for each real, with its SDR, thickness and intensity."
)
RADIOLOGY = (
    "Histograms over slices: reals filled, the others as lines. Intervals are 95 %, by bootstrap; KS and Wasserstein "
    "are between all slices of both sets; halves: what two halves of the reals differ by. The three that are "
    "tested have their distances in the table above, between sets of one size."
)
SPECTRUM = (
    "Power averaged over directions. Missing detail shows as a fall on the right, checkerboards as peaks there. "
    "Grey: what two halves of the reals differ by."
)
DUPLICATES = (
    "Two slices are near duplicates if their first 50 rows, binarised at 1200 HU, differ in fewer than 200 pixels. "
    "Counted here over all slices of a set, of which larger sets have more; the test above compares sets of one size. "
    "The rate is the share that dropping them one by one removes."
)
CLASSIFIERS = (
    "50 % is ideal for each accuracy. The discriminator should call as many fakes real as held-out reals; what it "
    "calls the idealised skulls says how much it looks at. It shares the generator's history, the trained network "
    "does not."
)
TERMS = {
    "Floor and limit": (
        f"The reals are halved {compare.HALVINGS} times into A and B; d(A, B) is the floor, the mean of d(F, B) the "
        "set's distance, F being as many of the set. limit = mean + c x standard deviation of the floor, one c for "
        f"all rows, within which {compare.LEVEL:.0%} of the halvings stay in all rows at once (single-step maxT, "
        "Westfall and Young 1993)."
    ),
    "KS, Wasserstein": (
        "Greatest difference of the distribution functions; mean distance of sorted values, in their unit. Bootstrap "
        f"of {compare.RESAMPLED}, reals by subject where {compare.LEAST_SUBJECTS} or more are known; intervals "
        "centred on the value."
    ),
    "Features": (
        "Means of 8 x 8 pixels (256); log(1 + energy / 100 HU) of Gabor filters, four orientations at waves of 4, 8 "
        "and 16 pixels, means over 32 x 32 pixels (192). Each standardised by the reals, both blocks of equal weight."
    ),
    "Precision, recall": (
        "Fakes that lie among the reals; reals that lie among the fakes, by 5 nearest neighbours (Kynkäänniemi et al. "
        "2019). metrics.json has them, density, coverage and KID for all slices, too."
    ),
    "Density, coverage": (
        "How densely the reals lie around a fake, 1 as they lie around each other; reals with a fake nearer than their "
        "5th real neighbour (Naeem et al. 2020)."
    ),
    "KID": (
        "Unbiased squared MMD, kernel (x·y + 1)³ (Binkowski et al. 2018), on these features. It grows with the sixth "
        "power of how far features lie out, so far beyond the limit its size says nothing."
    ),
    "Power spectrum": (
        "|DFT|²/N over rings of 1 to 64 cycles per image, Hann window along rows; distance: RMS over rings of the "
        "difference of mean dB."
    ),
    "Near duplicates": (
        "Tested: the share of slices with a near duplicate in their set, less that of the reals, in percentage points. "
        "Effective number: n² / (n + 2 pairs)."
    ),
    "Linear classifier": (
        "Linear discriminant with Ledoit-Wolf shrinkage on the features, five folds; balanced accuracy. It fails "
        "where the 99.5 % interval (Wilson; with subjects, of the effective number) lies above 50 %."
    ),
    "Trained network": (
        "Four 4 x 4 convolutions (8 to 64 channels), BatchNorm, mean over the image, on a slice and its fine detail; "
        "150 steps of Adam, two folds, at most 1000 slices of each set. It fails as the linear classifier does."
    ),
    "Discriminator": (
        "The model's own, in batches of 16 of one set, BatchNorm by the batch, as in training; real is a logit above "
        "0. No judgement where it calls fewer than 5 % or more than 95 % of the reals real, and the fakes alike."
    ),
    "Memorisation": (
        "It fails where the 99 % bootstrap interval of the share of pairs lies above 50 %, or more fakes than "
        "held-out slices are near copies (99.5 % interval). Slices within 100 HU are near copies: a head read again "
        "differs by 10 to 100 HU, other places of it by 107 or more."
    ),
}
LIMITS = (
    "Passing means that these looks, with so many slices, see no difference; not that there is none.",
    "With slices of few heads the reals are no sample of people. Without subjects, slices count as independent.",
    "A generator of heads it was trained on lies nearer to them than new heads do, without copying a slice.",
    "SDR depends on the kernel of the scanner (0.05 between two); compare sets of the same kernels.",
    "No radiologist has looked: that is what the visual Turing test is for.",
)
