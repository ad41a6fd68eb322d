"""The words of the page of segmentation, which numbers do not make by themselves."""

INTRODUCTION = """\
# Outlines of lesions in scans

Six simulated hospitals have scans with lesions whose outlines are known (`datasets.synthetic_scans`). They
differ in contrast, resolution, noise, artefacts and brightness, and in how many of their patients have
lesions, how large and how bright; North has most patients, Island fewest. The model is a U-Net with group
normalisation, trained with Dice and cross-entropy (`tasks.segmentation`).

`dice` is the overlap of the outlined voxels with the true ones, `hd95` the 95 % Hausdorff distance between
outlines in mm; both are over the test scans that have a lesion. A scan whose lesion was missed has Dice 0
and the diagonal of the scan as its distance. `false alarms` are the share of the test scans without a
lesion in which something is outlined. Means count every hospital once; in brackets 95 % bootstrap intervals
over test scans, of the mean over seeds. Learning rates are chosen on validation scans.

*hospital's own rate* gives every pixel the class that is most frequent there in the hospital's training
scans, *local only* has a model of each hospital, *best single site* the one of these that serves all
hospitals' training scans best, *pooled* one of all scans in one place.
"""

MEANINGS: dict[str, str] = {
    "2-D": """\
**What it means.** Hospitals that cannot learn alone gain: Coast and Island find next to nothing by
themselves, and with FedAvg they reach a Dice of .32 and .13, South rises from .37 to .60, and North and East,
which do best alone, lose .02 or less. Federated and pooled training are alike. But a network this small,
after 30 epochs, is no good radiologist anywhere: three of four healthy scans have something outlined, since
vessels are as bright as lesions. North's own model overlaps better with the lesions of the others than the
shared one does, and outlines something in nearly all healthy scans. Personal models (Ditto) are hardly
better than hospitals alone after as many rounds, and which scanner a scan is from matters more than the
method.""",
    "3-D": "",
}
