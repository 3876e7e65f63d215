"""The table of schemes: to add one is to add its object."""

from __future__ import annotations

from nbdense.quant.schemes.dynamic import DYNAMIC
from nbdense.quant.schemes.options import Options
from nbdense.quant.schemes.scheme import Scheme
from nbdense.quant.schemes.static import STATIC
from nbdense.quant.schemes.weight_only import WEIGHT_ONLY

SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (STATIC, DYNAMIC, WEIGHT_ONLY)}


def scheme_of(options: Options) -> Scheme:
    """Return the scheme that options name.

    Parameters
    ----------
    options : Options
        Options of `quantize`.

    Raises
    ------
    ValueError
        If there is none of that name, or it does not go together with the other options.
    """
    if options.scheme not in SCHEMES:
        raise ValueError(f"quantize: scheme must be {' or '.join(map(repr, SCHEMES))}, got {options.scheme!r}")
    scheme = SCHEMES[options.scheme]
    if options.granularity not in scheme.granularities:
        others = [other.name for other in SCHEMES.values() if options.granularity in other.granularities]
        raise ValueError(
            f"quantize: granularity {options.granularity!r} needs scheme {' or '.join(map(repr, others))}: scheme "
            f"{options.scheme!r} has a scale for each column"
        )
    return scheme
