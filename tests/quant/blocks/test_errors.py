"""Round-trip errors, held against those of llama.cpp's quantizers at equal type."""

import numpy as np
import pytest
from edgert_quant.blocks import BlockType, dequantize, quantize

from tests.support.ggml import TYPES, error, find, importance, samples

SLACK = 1 + 1e-3

# (plain, importance-weighted) errors of ggml 0.25.3 on `samples()`, printed by `python -m tests.support.ggml`
GGML = {
    "Q8_0": {
        "gaussian": (0.00536509, 0.00523305),
        "laplace": (0.0067469, 0.0067447),
        "outliers": (0.00989127, 0.00969581),
        "columns": (0.00939936, 0.0106418),
        "small": (0.0944136, 0.09414),
        "constant": (0.000193819, 0.000193819),
        "zero": (0, 0),
    },
    "Q4_0": {
        "gaussian": (0.0861226, 0.0705712),
        "laplace": (0.107553, 0.0935295),
        "outliers": (0.12892, 0.122762),
        "columns": (0.1288, 0.129558),
        "small": (0.0863231, 0.0708386),
        "constant": (0.000196799, 0.000214589),
        "zero": (0, 0),
    },
    "Q4_1": {
        "gaussian": (0.0787831, 0.0555121),
        "laplace": (0.0919515, 0.0667982),
        "outliers": (0.102383, 0.0748155),
        "columns": (0.111792, 0.093094),
        "small": (0.0801299, 0.0573029),
        "constant": (0.000196799, 0.000223161),
        "zero": (0, 0),
    },
    "Q5_0": {
        "gaussian": (0.0427399, 0.0348958),
        "laplace": (0.0531497, 0.0471224),
        "outliers": (0.0773205, 0.0725869),
        "columns": (0.0702828, 0.0755354),
        "small": (0.0444295, 0.0367683),
        "constant": (0.000196799, 0.000201046),
        "zero": (0, 0),
    },
    "Q5_1": {
        "gaussian": (0.0378686, 0.0266724),
        "laplace": (0.0444937, 0.0325337),
        "outliers": (0.0483791, 0.0364559),
        "columns": (0.0543199, 0.0463557),
        "small": (0.0481437, 0.039158),
        "constant": (0.000196799, 0.000223383),
        "zero": (0, 0),
    },
    "IQ4_NL": {
        "gaussian": (0.0761511, 0.0634652),
        "laplace": (0.0879953, 0.0749353),
        "outliers": (0.107345, 0.0953843),
        "columns": (0.104455, 0.101527),
        "small": (0.122339, 0.114801),
        "constant": (0.000201439, 0.000193371),
        "zero": (0, 0),
    },
    "IQ4_XS": {
        "gaussian": (0.0767537, 0.0643571),
        "laplace": (0.0888302, 0.0760745),
        "outliers": (0.109377, 0.099398),
        "columns": (0.105724, 0.104452),
        "small": (1, 1),
        "constant": (0.000202781, 0.0112441),
        "zero": (0, 0),
    },
    "Q2_K": {
        "gaussian": (0.29747, 0.194581),
        "laplace": (0.343399, 0.221793),
        "outliers": (0.260308, 0.210261),
        "columns": (0.393238, 0.272104),
        "small": (0.298209, 0.197306),
        "constant": (0.000197598, 0.000197598),
        "zero": (0, 0),
    },
    "Q3_K": {
        "gaussian": (0.150612, 0.117446),
        "laplace": (0.176354, 0.144099),
        "outliers": (0.151465, 0.134835),
        "columns": (0.182376, 0.17702),
        "small": (0.159437, 0.133712),
        "constant": (0.000196799, 0.000162104),
        "zero": (0, 0),
    },
    "Q4_K": {
        "gaussian": (0.0715107, 0.0567524),
        "laplace": (0.0852238, 0.0688842),
        "outliers": (0.0923152, 0.0775418),
        "columns": (0.101644, 0.0960853),
        "small": (0.0908396, 0.089573),
        "constant": (0.000224235, 0.000330429),
        "zero": (0, 0),
    },
    "Q5_K": {
        "gaussian": (0.0362309, 0.0293164),
        "laplace": (0.042674, 0.0363023),
        "outliers": (0.0465284, 0.0398333),
        "columns": (0.0521317, 0.0517034),
        "small": (2.2297, 2.17493),
        "constant": (0.000170183, 0.00018482),
        "zero": (0, 0),
    },
    "Q6_K": {
        "gaussian": (0.0177513, 0.0143672),
        "laplace": (0.0216529, 0.0186703),
        "outliers": (0.028872, 0.0282492),
        "columns": (0.0279633, 0.0297754),
        "small": (1, 1),
        "constant": (0.000207675, 0.000197603),
        "zero": (0, 0),
    },
    "IQ3_S": {
        "gaussian": (0.16622, 0.0998724),
        "laplace": (0.194599, 0.121053),
        "outliers": (0.256878, 0.192521),
        "columns": (0.271403, 0.211435),
        "small": (0.213544, 0.16374),
        "constant": (0.159373, 0.0939439),
        "zero": (0, 0),
    },
    "IQ3_XXS": {
        "gaussian": (0.214022, 0.118188),
        "laplace": (0.248847, 0.135734),
        "outliers": (0.310916, 0.215063),
        "columns": (0.340357, 0.222105),
        "small": (0.270297, 0.205225),
        "constant": (0.171109, 0.11013),
        "zero": (0, 0),
    },
    "IQ2_S": {
        "gaussian": (0.266966, 0.195134),
        "laplace": (0.325298, 0.238455),
        "outliers": (0.533423, 0.377507),
        "columns": (0.504209, 0.39203),
        "small": (0.277831, 0.222125),
        "constant": (0.061507, 0.061507),
        "zero": (0, 0),
    },
    "IQ2_XS": {
        "gaussian": (0.300257, 0.209092),
        "laplace": (0.330143, 0.252141),
        "outliers": (0.517031, 0.40025),
        "columns": (0.468821, 0.411488),
        "small": (0.309664, 0.229364),
        "constant": (0.0749443, 0.0749443),
        "zero": (0, 0),
    },
    "IQ2_XXS": {
        "gaussian": (0.342937, 0.341265),
        "laplace": (0.383417, 0.343741),
        "outliers": (0.68746, 0.518779),
        "columns": (0.58464, 0.530591),
        "small": (0.364494, 0.3464),
        "constant": (0.333264, 0.252524),
        "zero": (0, 0),
    },
    "IQ1_M": {
        "gaussian": (0.577496, 0.321882),
        "laplace": (0.581724, 0.349622),
        "outliers": (0.588647, 0.390362),
        "columns": (0.557891, 0.412786),
        "small": (0.576989, 0.321345),
        "constant": (0.112551, 0.213212),
        "zero": (0, 0),
    },
    "IQ1_S": {
        "gaussian": (0.484827, 0.391813),
        "laplace": (0.544908, 0.437291),
        "outliers": (0.643616, 0.508232),
        "columns": (0.622973, 0.548031),
        "small": (0.485485, 0.391644),
        "constant": (0.125006, 0.262245),
        "zero": (0, 0),
    },
    "MXFP4": {
        "gaussian": (0.114509, 0.11295),
        "laplace": (0.126371, 0.124059),
        "outliers": (0.167178, 0.186267),
        "columns": (0.151252, 0.159488),
        "small": (0.114723, 0.114503),
        "constant": (0.125105, 0.125105),
        "zero": (0, 0),
    },
    "TQ1_0": {
        "gaussian": (0.804914, 0.802656),
        "laplace": (0.82988, 0.819287),
        "outliers": (0.632455, 0.615389),
        "columns": (0.748282, 0.807553),
        "small": (0.804875, 0.802616),
        "constant": (0.000196799, 0.000196799),
        "zero": (0, 0),
    },
    "TQ2_0": {
        "gaussian": (0.804914, 0.802656),
        "laplace": (0.82988, 0.819287),
        "outliers": (0.632455, 0.615389),
        "columns": (0.748282, 0.807553),
        "small": (0.804875, 0.802616),
        "constant": (0.000196799, 0.000196799),
        "zero": (0, 0),
    },
}

GGML_LIBRARY = find()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", list(samples()))
def test_errors_are_no_worse_than_ggmls_were(kind: BlockType, name: str) -> None:
    x = samples()[name]
    for weights, theirs in zip((None, importance()), GGML[kind.name][name], strict=True):
        assert error(x, quantize(x, kind, importance=weights), kind, weights) <= theirs * SLACK


@pytest.mark.skipif(GGML_LIBRARY is None, reason="EDGERT_LLAMA_CPP_LIB does not name llama.cpp's folder of libraries")
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", list(samples()))
def test_errors_are_no_worse_than_ggmls(kind: BlockType, name: str) -> None:
    assert GGML_LIBRARY is not None
    x = samples(64, 2048)[name]
    for weights in (None, importance(2048)):
        ours = error(x, quantize(x, kind, importance=weights), kind, weights)
        assert ours <= error(x, GGML_LIBRARY.quantize(x, kind, weights), kind, weights) * SLACK


@pytest.mark.skipif(GGML_LIBRARY is None, reason="EDGERT_LLAMA_CPP_LIB does not name llama.cpp's folder of libraries")
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_ggml_reads_the_same_weights(kind: BlockType) -> None:
    assert GGML_LIBRARY is not None
    for x in samples().values():
        data = quantize(x, kind)
        np.testing.assert_array_equal(dequantize(data, kind), GGML_LIBRARY.dequantize(data, kind))


def test_importance_pays() -> None:
    """Errors are spent where importance is small: hardly in Q8_0, whose errors are next to none, in MXFP4, whose scales
    are powers of two, and in ternary types, where there is nothing but a scale for 256 weights.
    """
    x = samples()["gaussian"]
    for kind in set(TYPES) - {BlockType[name] for name in ("Q8_0", "MXFP4", "TQ1_0", "TQ2_0")}:
        with_it = quantize(x, kind, importance=importance())
        assert error(x, with_it, kind, importance()) < 0.96 * error(x, quantize(x, kind), kind, importance())
