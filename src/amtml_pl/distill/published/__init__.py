"""Published codes as they run, defects included, beside the corrected terms.

`losses`, `aekd` and `dml` also reproduce FitNet-MKD, OKD, CA-MKD, AEKD and DML; ``docs/methods/`` describes
each. AMTML-KD follows the notebook ``LR_adaptive_learning.ipynb`` of the authors' repository (commit
926ab3c) as described in ``docs/methods/amtml_adapter.md``. Reproduced on purpose:

- the KL term is averaged over all B·K elements and doubled (`losses.PublishedSoftTargetLoss`);
- its target carries gradients to the adapter and, through the features, to the student (same class);
- cross-entropy is computed on the tempered logits (`losses.PublishedCrossEntropy`);
- angle and distance compare log-probabilities with probabilities (`losses.PublishedRelationLoss`);
- the hint transforms are in no optimiser, and hints end with stage 1 (`losses.PublishedHintLoss`);
- L2 of 0.1 on the adapter drives it to uniform weights in stage 1 (`losses.PublishedAdapterL2`);
- the representation is average- and not max-pooled (`weighting.PublishedAdaptiveWeighting`);
- two stages, 80 + 200 epochs, the student warm-started and the adapter frozen (`schedule`);
- the student's own initial weights, and a forward of noise that touches its batch norm (`student`).

Departures, since promises of this project stand above them: the model is selected on a validation
split and not on the test split, and the run's seed, not the global generator reseeded to 1, draws what
comes after the adapter.
"""
