"""Strides and kernels from sizes and spacings."""

import pytest

from mdnc.planning.design import encoder_design, known_spacing, unet_design


def test_an_axis_waits_until_spacings_are_within_a_factor_2():
    design = unet_design((20, 320, 320), (3.6, 0.62, 0.62))
    assert design.strides[:3] == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert design.kernels[:4] == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))


def test_an_axis_stops_before_it_runs_out_and_the_others_go_on():
    design = unet_design((20, 320, 320), (3.6, 0.62, 0.62))
    assert design.factors == (4, 64, 64)
    assert design.reasons[0] == 'axis 0 ends with 5 values'


def test_thin_slices_are_seen_in_sizes_where_no_spacing_is_known():
    assert known_spacing((19, 256, 256), None)[0] == (4.0, 1.0, 1.0)
    assert known_spacing((128, 128, 100), None)[0] == (1.0, 1.0, 1.0)


def test_an_axis_of_one_value_is_never_divided():
    design = unet_design((64, 64, 1), None)
    assert design.factors[2] == 1 and all(kernel[2] == 1 for kernel in design.kernels)


@pytest.mark.parametrize(
    ('length', 'strides'),
    [(24, ((1,), (1,), (2,), (2,))), (150, ((1,), (1,), (2,), (2,))), (8, ((1,), (1,), (2,), (2,)))],
)
def test_short_signals_keep_their_length_for_a_while(length, strides):
    assert encoder_design((length,), None).strides == strides


def test_long_signals_are_divided_by_4_at_once_and_to_an_end():
    design = encoder_design((2_000_000,), None)
    assert design.strides[0] == (4,) and design.factors[0] >= 2**14


def test_a_long_period_deepens_the_network():
    assert len(encoder_design((4000,), None, period=1900).strides) > len(encoder_design((4000,), None).strides)


def test_small_images_are_not_divided_at_once():
    assert encoder_design((8, 8), None).strides == ((1, 1), (2, 2))
    assert encoder_design((224, 224), None).strides == ((2, 2),) * 5
