"""How fast models forecast."""

from matey.studies.speed import batch_of


def test_long_samples_are_forecast_in_smaller_batches():
    assert [batch_of(tokens) for tokens in (1, 128.5, 4096, 16384, 65536, 262144)] == [16, 16, 16, 4, 1, 1]
