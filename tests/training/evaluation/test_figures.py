"""The figures of a test are those of scikit-learn and SciPy, or of a sum made by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from mdnc.training.evaluation import (
    Figure,
    Table,
    dice,
    error_sums,
    evaluate_classes,
    evaluate_errors,
    evaluate_overlaps,
    no_better,
)
from mdnc.training.evaluation.calibration import calibration_error
from mdnc.training.evaluation.classification import evaluate_labels
from mdnc.training.evaluation.intervals import area, wilson

CLASSES = ['cat', 'dog', 'eel', 'fly']


def table(**columns):
    count = len(next(iter(columns.values())))
    return Table(np.arange(count), [f's{n}' for n in range(count)], np.zeros(count), columns)


def guesses(count=200, classes=4, seed=0):
    """Truths and probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes - 1, count)  # of the last class there is none
    scores = rng.dirichlet(np.ones(classes), count) + 0.6 * np.eye(classes)[target] * rng.random((count, 1))
    return target, (scores / scores.sum(1, keepdims=True)).astype(np.float32)


def judged(target, scores):
    answer = scores.argmax(1)
    return answer, evaluate_classes(
        table(target=target, answer=answer, confidence=scores.max(1), scores=scores), CLASSES
    )


def test_figures_of_classes_are_those_of_scikit_learn():
    target, scores = guesses()
    answer, found = judged(target, scores)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(target, answer, labels=range(4)))
    precision, recall, f1, count = metrics.precision_recall_fscore_support(
        target, answer, labels=range(4), zero_division=np.nan
    )
    for number, name in enumerate(CLASSES):
        figures = {word: figure.value for word, figure in found.each[name].items()}
        assert figures['samples'] == count[number]
        np.testing.assert_allclose(figures['precision'], precision[number])
        np.testing.assert_allclose(figures['recall'], recall[number])
        np.testing.assert_allclose(figures['f1'], f1[number])
        others = metrics.recall_score(target != number, answer != number)
        np.testing.assert_allclose(figures['specificity'], others)
    overall = {word: figure.value for word, figure in found.overall.items()}
    assert overall['accuracy'] == metrics.accuracy_score(target, answer)
    np.testing.assert_allclose(overall['f1'], np.nanmean(f1))
    with pytest.warns(UserWarning, match='y_pred contains classes not in y_true'):
        balanced = metrics.balanced_accuracy_score(target, answer)
    np.testing.assert_allclose(overall['balanced_accuracy'], balanced)


def test_areas_are_those_of_scikit_learn():
    target, scores = guesses()
    scores = scores.round(1)  # with ties
    _, found = judged(target, scores)
    expected = [metrics.roc_auc_score(target == number, scores[:, number]) for number in range(3)]
    np.testing.assert_allclose([found.each[name]['auroc'].value for name in CLASSES[:3]], expected)
    assert np.isnan(found.each['fly']['auroc'].value), 'no sample is of this class'
    np.testing.assert_allclose(found.overall['auroc'].value, np.mean(expected))


def test_intervals_of_areas_are_delongs():
    rng = np.random.default_rng(1)
    positive = rng.random(80) < 0.4
    scores = np.round(positive + rng.normal(0, 1, 80), 1)
    above, below = scores[positive], scores[~positive]
    wins = (above[:, None] > below) + 0.5 * (above[:, None] == below)  # pair by pair, as it is defined
    half = 1.959964 * np.sqrt(wins.mean(1).var(ddof=1) / len(above) + wins.mean(0).var(ddof=1) / len(below))
    figure = area(scores, positive)
    np.testing.assert_allclose([figure.value, figure.low, figure.high], wins.mean() + half * np.array([0, -1, 1]))
    assert np.isnan(area(np.arange(4.0), np.array([False, False, True, True])).low), 'no error seen: no interval'


@pytest.mark.parametrize(('hits', 'total'), [(0, 7), (3, 7), (7, 7), (980, 1000)])
def test_intervals_of_shares_are_wilsons(hits, total):
    figure, expected = wilson(hits, total), binomtest(hits, total).proportion_ci(method='wilson')
    np.testing.assert_allclose([figure.low, figure.high], [expected.low, expected.high], atol=1e-12)
    assert figure.value == hits / total
    assert np.isnan(wilson(0, 0).value)


def test_shares_of_classes_carry_wilsons_interval():
    target, scores = guesses()
    answer, found = judged(target, scores)
    cat = found.each['cat']
    hits, called = int(((answer == 0) & (target == 0)).sum()), int((answer == 0).sum())
    assert cat['precision'] == wilson(hits, called)
    assert cat['recall'] == wilson(hits, int((target == 0).sum()))
    assert found.overall['accuracy'] == wilson(int((answer == target).sum()), len(target))
    union = wilson(hits, int(((answer == 0) | (target == 0)).sum()))
    np.testing.assert_allclose(cat['f1'].low, 2 * union.low / (1 + union.low))
    np.testing.assert_allclose(cat['f1'].high, 2 * union.high / (1 + union.high))


def close(figure, expected, room):
    low, high = expected.confidence_interval
    np.testing.assert_allclose([figure.low, figure.high], [low, high], atol=room * (high - low))


def test_the_bootstrap_of_means_over_classes_is_scipys():
    target, scores = guesses()
    answer, found = judged(target, scores)

    def f1(places):
        return metrics.f1_score(target[places], answer[places], average='macro', labels=[0, 1, 2, 3], zero_division=0)

    expected = bootstrap((np.arange(200),), f1, vectorized=False, n_resamples=1000, method='percentile', rng=0)
    close(found.overall['f1'], expected, 0.15)
    assert judged(target, scores)[1].overall['f1'] == found.overall['f1'], 'the same at every call'


def test_the_calibration_error_is_that_of_torchmetrics():
    target, scores = guesses(500)
    found = calibration_error(scores.max(1), scores.argmax(1) == target)
    expected = multiclass_calibration_error(torch.from_numpy(scores), torch.from_numpy(target), 4, n_bins=10)
    np.testing.assert_allclose(found, float(expected), rtol=1e-4)


def test_labels_of_several_classes_a_sample():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (150, 3))
    scores = np.clip(target * 0.4 + rng.random((150, 3)) * 0.7, 0, 1)
    found = evaluate_labels(table(target=target, scores=scores), CLASSES[:3])
    answer = scores > 0.5
    assert found.overall['exact_match'] == wilson(int(metrics.accuracy_score(target, answer, normalize=False)), 150)
    np.testing.assert_allclose(found.overall['f1'].value, metrics.f1_score(target, answer, average='macro'))
    np.testing.assert_allclose(found.overall['auroc'].value, metrics.roc_auc_score(target, scores))
    np.testing.assert_allclose(
        found.each['dog']['precision'].value, metrics.precision_score(target[:, 1], answer[:, 1])
    )
    np.testing.assert_allclose(found.overall['accuracy'].value, (target == answer).mean())


def confusions(cases):
    return np.stack([metrics.confusion_matrix(true, said, labels=range(3)) for true, said in cases])


def segmented(seed=0, count=12):
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        true = rng.integers(0, 3 if number % 3 else 2, 60)  # a third of the cases has nothing of the last class
        cases.append((true, np.where(rng.random(60) < 0.7, true, rng.integers(0, 2 if number % 3 == 0 else 3, 60))))
    return cases


def test_overlaps_are_of_all_positions_and_of_each_case():
    cases = segmented()
    found = evaluate_overlaps(table(confusion=confusions(cases)), ['none', 'liver', 'tumour'])
    true, said = (np.concatenate(parts) for parts in zip(*cases, strict=True))
    pooled = metrics.f1_score(true, said, average=None)
    single = np.array([metrics.f1_score(*case, average=None, labels=range(3), zero_division=np.nan) for case in cases])
    assert np.isnan(single[:, 2]).sum() == 4
    for number, name in enumerate(['none', 'liver', 'tumour']):
        np.testing.assert_allclose(found.each[name]['dice'].value, pooled[number])
        np.testing.assert_allclose(found.each[name]['dice_case'].value, np.nanmean(single[:, number]))
        precision = metrics.precision_score(true == number, said == number)
        np.testing.assert_allclose(found.each[name]['precision'].value, precision)
        np.testing.assert_allclose(
            found.each[name]['recall'].value, metrics.recall_score(true == number, said == number)
        )
        specificity = metrics.recall_score(true != number, said != number)
        np.testing.assert_allclose(found.each[name]['specificity'].value, specificity)
    assert found.each['tumour']['cases'].value == 8
    overall = {word: figure.value for word, figure in found.overall.items()}
    np.testing.assert_allclose(overall['dice'], pooled.mean())
    np.testing.assert_allclose(overall['dice_foreground'], pooled[1:].mean())
    np.testing.assert_allclose(overall['dice_case'], np.nanmean(single, 0)[1:].mean())
    np.testing.assert_allclose(overall['accuracy'], (true == said).mean())
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(true, said))
    np.testing.assert_allclose(found.columns['dice'], np.nanmean(single[:, 1:], 1))
    np.testing.assert_allclose(found.columns['dice tumour'], single[:, 2])


def test_the_bootstrap_of_overlaps_draws_cases():
    counts = confusions(segmented(count=40))
    found = evaluate_overlaps(table(confusion=counts), ['none', 'liver', 'tumour'])

    def liver(places):
        return dice(counts[places].sum(0))[1]

    def cases(places):
        return np.nanmean(dice(counts[places]), 0)[1:].mean()

    for figure, statistic in ((found.each['liver']['dice'], liver), (found.overall['dice_case'], cases)):
        expected = bootstrap((np.arange(40),), statistic, vectorized=False, n_resamples=999, method='percentile', rng=0)
        close(figure, expected, 0.15)


def test_one_case_has_no_interval():
    found = evaluate_overlaps(table(confusion=confusions(segmented(count=1))), ['none', 'liver', 'tumour'])
    assert np.isfinite(found.overall['dice'].value)
    assert np.isnan([found.overall['dice'].low, found.overall['dice'].high]).all()
    assert found.overall['dice'].plain()['low'] is None


def test_errors_of_quantities():
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 10, (120, 2))
    predicted = truth + rng.normal(1, 3, (120, 2))
    truth[::4, 1] = np.nan
    found = evaluate_errors(table(truth=truth, predicted=predicted), ['age', 'dose'])
    assert found.overall == {}, 'quantities may have different units'
    for number, name in enumerate(['age', 'dose']):
        there = np.isfinite(truth[:, number])
        true, said = truth[there, number], predicted[there, number]
        error = said - true
        figures = {word: figure.value for word, figure in found.each[name].items()}
        assert figures.pop('samples') == len(true)
        expected = {
            'rmse': metrics.root_mean_squared_error(true, said),
            'mae': metrics.mean_absolute_error(true, said),
            'r2': metrics.r2_score(true, said),
            'bias': error.mean(),
            'agreement_low': error.mean() - 1.959964 * error.std(ddof=1),
            'agreement_high': error.mean() + 1.959964 * error.std(ddof=1),
        }
        assert figures == pytest.approx(expected)
    errors = predicted[:, 0] - truth[:, 0]
    expected = bootstrap((errors,), lambda part, axis: np.sqrt((part**2).mean(axis)), method='percentile', rng=0)
    close(found.each['age']['rmse'], expected, 0.15)
    np.testing.assert_allclose(found.columns['error age'], errors)
    assert list(found.columns)[:3] == ['target age', 'answer age', 'error age']


def test_errors_of_maps_are_those_of_their_positions():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(5, 2, 4, 6, generator=generator)
    predicted = truth + 0.5 * torch.randn(5, 2, 4, 6, generator=generator)
    known = torch.rand(5, 2, 4, 6, generator=generator) < 0.8
    sums = error_sums(truth, predicted, known).numpy()
    found = evaluate_errors(table(sums=sums), ['one', 'two'])
    for number, name in enumerate(['one', 'two']):
        there = known[:, number].numpy()
        true, said = truth[:, number].numpy()[there], predicted[:, number].numpy()[there]
        assert found.each[name]['rmse'].value == pytest.approx(metrics.root_mean_squared_error(true, said))
        assert found.each[name]['r2'].value == pytest.approx(metrics.r2_score(true, said))
        assert found.each[name]['mae'].value == pytest.approx(metrics.mean_absolute_error(true, said))
        assert found.each[name]['agreement_high'].value == pytest.approx(
            (said - true).mean() + 1.959964 * (said - true).std(ddof=1), rel=1e-5
        )
        first = (predicted - truth)[0, number][known[0, number]]
        assert found.columns[f'rmse {name}'][0] == pytest.approx(float((first**2).mean().sqrt()), rel=1e-6)


def test_what_does_not_vary_has_no_r2():
    found = evaluate_errors(table(truth=np.full((5, 1), 3.1), predicted=np.arange(5.0)[:, None]), ['x'])
    assert np.isnan(found.overall['r2'].value)
    assert found.overall['mae'].value == pytest.approx(np.abs(np.arange(5) - 3.1).mean())
    nothing = evaluate_errors(table(truth=np.full((5, 1), np.nan), predicted=np.zeros((5, 1))), ['x'])
    assert nothing.overall['rmse'].plain() == {'value': None, 'low': None, 'high': None}


def test_figures_are_plain_for_json():
    assert Figure(0.5, 0.25).plain() == {'value': 0.5, 'low': 0.25, 'high': None}
    plain = judged(*guesses())[1].plain()
    assert plain['classes']['cat']['samples'] > 0
    assert plain['confusion']['classes'] == CLASSES
    assert plain['intervals']['level'] == 0.95


@pytest.mark.parametrize('better', [False, True])
def test_an_answer_that_needs_no_network_is_named_where_it_is_as_good(better):
    target = np.arange(40) % 4 // 3
    classes = evaluate_classes(
        table(target=target, answer=target * better, confidence=np.full(40, 0.9)), ['calm', 'wild']
    )
    assert no_better(classes) == (None if better else 'always answering calm')
    truth = np.random.default_rng(0).normal(size=(40, 2))
    predicted = np.stack([truth[:, 0] * 0.9, truth[:, 1] * (0.9 if better else -1)], 1)
    values = evaluate_errors(table(truth=truth, predicted=predicted), ['a', 'b'])
    assert no_better(values) == (None if better else 'the mean of its targets for b')
    labels = np.stack([target, 1 - target], 1)
    scores = np.where(labels > 0, 0.9, 0.1) if better else np.tile([0.1, 0.9], (40, 1))
    several = evaluate_labels(table(target=labels, scores=scores), ['a', 'b'])
    assert no_better(several) == (None if better else 'what is usual of each class')
    maps = np.array([[[90, 0], [10 * (not better), 10 * better]]] * 3)
    assert no_better(evaluate_overlaps(table(confusion=maps), ['none', 'cell'])) == (
        None if better else 'answering the first class everywhere'
    )


def test_too_few_samples_tell_nothing_of_trivial_answers():
    few = table(target=np.zeros(5, int), answer=np.zeros(5, int), confidence=np.ones(5))
    assert no_better(evaluate_classes(few, ['calm', 'wild'])) is None
