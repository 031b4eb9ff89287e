"""The cases of a check, from the coverage of a wheel and from what upstream documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attnforge.check.subject import Subject
from attnforge.model.check import Case

# In the order in which they come, for packages that have all.
TOPICS = (
    "smoke",
    "dense",
    "head-dim",
    "strided",
    "layout",
    "kernel",
    "softcap",
    "alibi",
    "window",
    "varlen",
    "cache",
    "splits",
    "paged",
    "append",
    "index",
    "backward",
    "dropout",
    "long",
    "left-out",
    "errors",
    "compile",
    "graph",
    "streams",
    "devices",
)

# (batch, rows, columns, heads, kv_heads). Few heads and batches go to split-KV kernels upstream; one row is decoding;
# odd lengths are no multiple of a tile; 256 x 64 causal has rows that see nothing; fewer kv_heads are GQA and MQA.
_SHAPES = (
    (2, 128, 128, 4, 4),
    (1, 777, 777, 8, 8),
    (2, 113, 203, 6, 3),
    (1, 1, 4096, 8, 8),
    (1, 1, 1000, 16, 2),
    (4, 1024, 1024, 16, 16),
    (1, 3, 20000, 2, 1),
    (3, 256, 64, 4, 4),
    (1, 64, 129, 1, 1),
)
_QUICK_SHAPES = _SHAPES[:3]
_FEATURE_SHAPES = (_SHAPES[0], _SHAPES[2], (1, 300, 1000, 4, 1))
_GRADIENT_SHAPES = ((2, 128, 128, 4, 4), (1, 113, 203, 6, 3), (1, 257, 257, 4, 1))
_LONG = (1, 16384, 16384, 2, 1)

# What each feature asks of a call. Scores of random inputs have a deviation of 1: a softcap of 1.5 changes every one.
_FEATURES: dict[str, dict[str, Any]] = {
    "softcap": {"softcap": 1.5},
    "alibi": {"alibi": True},
    "window": {"window": (16, 8)},
}

# (rows, columns) of sequences, kv_heads of 4 heads: empty ones, one row each (upstream swaps groups there), a single
# one.
_VARLEN = (
    (((17, 17), (0, 5), (300, 300), (1, 64)), 4),
    (((5, 0), (130, 130)), 2),
    (((1, 2000), (1, 31), (1, 700)), 1),
    (((64, 64),), 2),
)
_PAGED = ((17, 17), (5, 300), (1, 64))
_VARLEN_PLAIN = ((((17, 17), (300, 300), (64, 64)), 4), (((130, 130), (1, 1)), 2))


def cases_for(subject: Subject) -> tuple[Case, ...]:
    """Return the cases, those of one topic after another; the smoke test that users know comes first."""
    found = list(_smoke(subject))
    for dtype in subject.dtypes:
        for head_dim in subject.head_dims:
            found += _numbers(subject, dtype, head_dim)
        if not subject.quick:
            found += _long(subject, dtype)
    found += _not_built(subject)
    found += _refused(subject)
    found += _running(subject)
    wanted = (case for case in found if not subject.only or case.topic in ("smoke", *subject.only))
    expected = _once(_expected(subject, case) for case in wanted)
    return tuple(sorted(expected, key=lambda case: TOPICS.index(case.topic)))


def _case(topic: str, call: str, dtype: str, head_dim: int, **fields: Any) -> Case:
    """Return a case whose name says all that it is."""
    case = Case(name="", topic=topic, call=call, dtype=dtype, head_dim=head_dim, **fields)
    words = [topic, call if call != topic else "", case.kernel, case.mode, dtype, f"d={head_dim}"]
    if case.lengths:
        words.append(",".join(f"{rows}x{columns}" for rows, columns in case.lengths))
    else:
        words.append(f"{case.batch}x{case.rows}x{case.columns}")
    words.append(f"h={case.heads}/{case.kv_heads}")
    words += [word for word in ("causal", "deterministic") if getattr(case, word)]
    words += [f"{word}={getattr(case, word)}" for word in ("softcap", "dropout") if getattr(case, word)]
    words += ["alibi"] if case.alibi else []
    words += [f"window={case.window[0]},{case.window[1]}"] if case.window != (-1, -1) else []
    words += [case.layout] if case.layout != "NHD" else []
    words += [case.strided]
    return case.model_copy(update={"name": " ".join(word for word in words if word)})


def _shape(shape: tuple[int, int, int, int, int]) -> dict[str, int]:
    return dict(zip(("batch", "rows", "columns", "heads", "kv_heads"), shape, strict=True))


def _smoke(subject: Subject) -> Iterator[Case]:
    """q, k and v of (2, 4, 128, 64): for most packages 4 rows of 128 heads."""
    larger = subject.behaviour.rounds_up and max(subject.head_dims) > 64
    head_dim = 64 if 64 in subject.head_dims or larger else subject.head_dims[0]
    yield _case("smoke", "smoke", subject.dtypes[0], head_dim, batch=2, rows=4, columns=4, heads=128, kv_heads=128)


def _numbers(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    yield from _dense(subject, dtype, head_dim)
    if dtype == "fp8":  # upstream has it for plain calls only
        return
    yield from _sizes(subject, dtype, head_dim)
    yield from _memory(subject, dtype, head_dim)
    yield from _kernels(subject, dtype, head_dim)
    yield from _featured(subject, dtype, head_dim)
    if subject.has_varlen and head_dim in (subject.behaviour.varlen_head_dims or (head_dim,)):
        yield from _varlen(subject, dtype, head_dim)
    if subject.has_cache:
        yield from _cache(subject, dtype, head_dim)
    if subject.behaviour.gradients:
        yield from _gradients(subject, dtype, head_dim)
    if "dropout" in subject.takes:
        yield _case("dropout", "dropout", dtype, head_dim, batch=2, rows=256, columns=512, dropout=0.25)


def _masks(subject: Subject, shape: tuple[int, int, int, int, int]) -> tuple[bool, ...]:
    """Return with which causal masks a shape is served."""
    return (False, True) if subject.behaviour.unequal_causal or shape[1] == shape[2] else (False,)


def _shapes(subject: Subject) -> tuple[tuple[int, int, int, int, int], ...]:
    return _QUICK_SHAPES if subject.quick else _SHAPES


def _dense(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    for shape in _shapes(subject):
        for causal in _masks(subject, shape):
            yield _case("dense", "dense", dtype, head_dim, causal=causal, **_shape(shape))


def _sizes(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    """Head dimensions below the kernel's: the multiple of 8 before it, and one that is no multiple of 8."""
    if not subject.behaviour.smaller_head_dims:
        return
    for less in (8, 3) if subject.behaviour.odd_head_dims else (8,):
        for shape in (_SHAPES[0], _SHAPES[2]):
            for causal in _masks(subject, shape):
                yield _case("head-dim", "dense", dtype, head_dim - less, causal=causal, **_shape(shape))


def _memory(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    """Inputs that are not contiguous, and the layouts that the package takes."""
    for strided in ("packed", "transposed"):
        yield _case("strided", "dense", dtype, head_dim, strided=strided, **_shape(_SHAPES[0]))
    for layout in subject.layouts:
        if layout != "NHD":
            for shape in _QUICK_SHAPES:
                for causal in _masks(subject, shape):
                    yield _case("layout", "dense", dtype, head_dim, layout=layout, causal=causal, **_shape(shape))


def _kernels(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    """Every function that upstream exports, by name. SageAttention has one for each sort of GPU: the others refuse."""
    promised = subject.behaviour.rule != "quantized"
    for kernel in subject.kernels:
        if kernel == subject.main:
            continue
        for causal in (False, True):
            shape = _shape(_SHAPES[0] if subject.quick else _SHAPES[1])
            yield _case("kernel", "dense", dtype, head_dim, kernel=kernel, causal=causal, promised=promised, **shape)


def _featured(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    for feature, asks in _FEATURES.items():
        if feature not in subject.takes:
            continue
        for shape in _FEATURE_SHAPES[:1] if subject.quick else _FEATURE_SHAPES:
            for causal in _masks(subject, shape):
                yield _case(feature, "dense", dtype, head_dim, causal=causal, **_shape(shape), **asks)
        if feature in subject.varlen_takes:
            lengths, kv_heads = _VARLEN[0]
            yield _case(feature, "varlen", dtype, head_dim, lengths=lengths, kv_heads=kv_heads, **asks)
        if feature in subject.cache_takes:
            yield _case(feature, "cache", dtype, head_dim, mode="lengths", **_CACHE, **asks)


def _varlen(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    for lengths, kv_heads in _VARLEN if subject.behaviour.empty_sequences else _VARLEN_PLAIN:
        for causal in (False, True):
            yield _case("varlen", "varlen", dtype, head_dim, lengths=lengths, kv_heads=kv_heads, causal=causal)
    if "table" in subject.varlen_takes:
        for causal in (False, True):
            yield _case("paged", "varlen", dtype, head_dim, mode="paged", lengths=_PAGED, kv_heads=2, causal=causal)


_CACHE: dict[str, Any] = {"batch": 2, "rows": 1, "columns": 512, "heads": 8, "kv_heads": 2}


def _cache(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    for topic, mode, asks in (
        ("cache", "lengths", "lengths"),
        ("splits", "splits", "splits"),
        ("paged", "paged", "table"),
        ("append", "append", "new_k"),
        ("index", "index", "index"),
    ):
        if asks not in subject.cache_takes:
            continue
        yield _case(topic, "cache", dtype, head_dim, mode=mode, **_CACHE)
        if not subject.quick:
            rows = {**_CACHE, "rows": 5}
            yield _case(topic, "cache", dtype, head_dim, mode=mode, causal=True, **rows)


def _gradients(subject: Subject, dtype: str, head_dim: int) -> Iterator[Case]:
    for shape in _GRADIENT_SHAPES[:1] if subject.quick else _GRADIENT_SHAPES:
        for causal in (False, True):
            yield _case("backward", "gradients", dtype, head_dim, causal=causal, **_shape(shape))
    if subject.behaviour.deterministic_gradients and "deterministic" in subject.takes:
        yield _case("backward", "gradients", dtype, head_dim, deterministic=True, **_shape(_GRADIENT_SHAPES[1]))
    topics = _topics_left_out(subject)
    for feature, asks in _FEATURES.items():
        if feature in subject.takes and feature not in topics:
            yield _case("backward", "gradients", dtype, head_dim, **_shape(_GRADIENT_SHAPES[1]), **asks)


def _long(subject: Subject, dtype: str) -> Iterator[Case]:
    for causal in (False, True):
        yield _case("long", "dense", dtype, subject.head_dims[0], causal=causal, **_shape(_LONG))


def _not_built(subject: Subject) -> Iterator[Case]:
    """Head dimensions and dtypes that upstream has and this wheel lacks."""
    if not subject.ours:
        return
    dtype, head_dim = subject.dtypes[0], subject.head_dims[0]
    for other in subject.head_dims_left_out:
        if other in subject.head_dims:
            continue
        if subject.behaviour.rounds_up and other < max(subject.head_dims):
            yield _case("head-dim", "dense", dtype, other, **_shape(_SHAPES[0]))
            continue
        left_out = f"head dimension {other}"
        words = _words(subject, f"{left_out} ")
        yield _case("left-out", "dense", dtype, other, left_out=left_out, words=words, **_shape(_SHAPES[0]))
    for other_dtype in subject.behaviour.dtypes:
        if other_dtype not in subject.dtypes:
            words, shape = _words(subject, f"in {other_dtype}"), _shape(_SHAPES[0])
            yield _case("left-out", "dense", other_dtype, head_dim, left_out=other_dtype, words=words, **shape)


def _words(subject: Subject, named: str) -> tuple[tuple[str, ...], ...]:
    """Return what a message has to say: what was left out and what builds it, or else one of upstream's own
    refusals."""
    refusals = subject.behaviour.refusals
    return (refusals,) if refusals else ((named,), ("attnforge build",))


def _running(subject: Subject) -> Iterator[Case]:
    """How calls go together with the rest of PyTorch: once, in the first dtype and head dimension."""
    dtype, head_dim, shape = subject.dtypes[0], subject.head_dims[0], _shape(_SHAPES[0])
    whole, anywhere = subject.behaviour.whole_graph, subject.behaviour.any_device
    yield _case("compile", "compile", dtype, head_dim, promised=whole, **shape)
    yield _case("graph", "graph", dtype, head_dim, **shape)
    yield _case("streams", "streams", dtype, head_dim, **shape)
    yield _case("devices", "devices", dtype, head_dim, promised=anywhere, **shape)


def _refused(subject: Subject) -> Iterator[Case]:
    """A call that no build of the package serves: its error has to come through, with upstream's message."""
    if subject.behaviour.heads_refused:
        dtype, head_dim, said = subject.dtypes[0], subject.head_dims[0], subject.behaviour.heads_refused
        yield _case("errors", "dense", dtype, head_dim, **{**_shape(_SHAPES[0]), "kv_heads": 3}, refused=said)


def _topics_left_out(subject: Subject) -> dict[str, str]:
    """Return the topics whose cases have to raise, with the feature that was left out."""
    features = subject.behaviour.features
    return {topic: feature for feature in sorted(subject.left_out) for topic in features.get(feature, ())}


def _expected(subject: Subject, case: Case) -> Case:
    """Return the case as it has to go in this wheel: right, as upstream's release has it, or raising where its topic
    was left out."""
    feature = _topics_left_out(subject).get(case.topic)
    if feature is None:
        return _with_fault(subject, case)
    return case.model_copy(
        update={"left_out": feature, "words": _words(subject, feature), "name": f"left out: {case.name}"}
    )


def _with_fault(subject: Subject, case: Case) -> Case:
    keys = tuple(columns for _, columns in case.lengths) or (case.columns,)
    for fault in subject.behaviour.faults:
        if fault.concerns(case.causal, keys):
            return case.model_copy(update={"fault": fault.id, "least_cosine": fault.least_cosine})
    return case


def _once(cases: Iterable[Case]) -> list[Case]:
    """Drop cases that raise for the reason for which another does, in another shape."""
    kept, seen = [], set()
    for case in cases:
        key = (case.left_out, case.topic, case.call, case.dtype, case.head_dim, case.causal, case.mode)
        if case.left_out and key in seen:
            continue
        seen.add(key)
        kept.append(case)
    return kept
