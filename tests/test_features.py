"""What the trees look at, and the fit that ships."""

from __future__ import annotations

from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st
from kernel_table import CONVOLUTION, MEMORY, PRODUCT, row_of

from alexsim.costs.correction import load_correction
from alexsim.costs.cost import REALMS, Cost, Work
from alexsim.costs.features import NAMES
from alexsim.costs.libraries import load_library
from alexsim.editions.load import load_network
from alexsim.fidelity.kernel_calls import call_of
from alexsim.machine.device import load_device
from alexsim.network import counts
from alexsim.plan.plan import OpKind

CARDS = ["k80", "titan-x-maxwell", "p100", "v100", "t4", "a100"]
LIBRARIES = ["cudnn-v4", "cudnn-v8", "im2col-gemm", "nervana-winograd"]
NETWORKS = ["lenet-5", "alexnet-2012", "mobilenet_v2"]
SHIPPED = load_correction()


def works(network: str, batch: int) -> list[Work]:
    made = []
    for part, *_ in load_network(network).parts:
        made.append((OpKind.FORWARD, part, counts.forward(part, batch)))
        if part.weight_shape:
            made.append((OpKind.GRAD_WEIGHT, part, counts.grad_weight(part, batch, fused=False)))
    return [Work(kind=kind, part=part, batch_size=batch, count=c) for kind, part, c in made]


def costs_of(card: object, library: str, network: str, batch: int) -> list[Cost]:
    model = load_library(library)
    return [c for work in works(network, batch) for c in model.costs(card, work)]  # type: ignore[arg-type]


def test_every_kind_has_as_many_features_as_names() -> None:
    for base in (CONVOLUTION, PRODUCT, MEMORY):
        learned = call_of(row_of(base)).learned
        assert len(learned.features) == len(NAMES[learned.kind])
    for cost in costs_of(load_device("v100"), "cudnn-v8", "mobilenet_v2", 8):
        if cost.learned:
            assert len(cost.learned.features) == len(NAMES[cost.learned.kind])


@given(
    st.sampled_from(CARDS), st.sampled_from(LIBRARIES), st.sampled_from(NETWORKS),
    st.sampled_from([1, 7, 64, 256]),
    st.sampled_from(["clock_hz", "multiprocessors", "memory_bytes_per_s"]),
    st.sampled_from([2, 3, 7]),
)  # fmt: skip
def test_a_changed_card_has_its_sheets_features_and_none_is_over_the_peaks(
    name: str, library: str, network: str, batch: int, key: str, times: float
) -> None:
    """So a number that a user changes moves the mechanism alone."""
    card = load_device(name)
    changed = card.changed(**{key: times * getattr(card, key).value})
    assert changed.basis is card
    pairs = zip(
        costs_of(card, library, network, batch),
        costs_of(changed, library, network, batch),
        strict=True,
    )
    for before, after in pairs:
        assert before.learned == after.learned
        assert before.traits == after.traits
        for cost in (before, after):
            assert SHIPPED.time(cost) >= cost.least_s


def test_the_shipped_fit_is_small_and_its_card_is_of_what_taught() -> None:
    stored = files("alexsim_profiles") / "measurements" / "fit.npz"
    assert len(stored.read_bytes()) < 1_000_000
    card = SHIPPED.card
    assert set(SHIPPED.coefficients) == set(SHIPPED.traits)
    assert {kind for kind, _ in SHIPPED.forests} == set(NAMES)
    assert {realm for _, realm in SHIPPED.forests} == set(REALMS)
    for counted in (card.devices, card.libraries, card.kernel_sources):
        assert counted
        assert min(counted.values()) > 0
    assert "published" in card.data
    assert all(len(digest) == 64 and int(digest, 16) for digest in card.data.values())
    # A device with a coefficient of its own has taught.
    named = {trait.split(":")[1] for trait in SHIPPED.traits if trait.startswith("device:")}
    assert named <= set(card.devices)
