"""Editions for tests: those before VGG-16, which are chains, and of the later ones one or two of
each family.

The others of a family differ in depth and width alone; ``test_network_zoo`` counts every one.
"""

from alexsim.editions import zoo
from alexsim.editions.load import edition_names, load_network
from alexsim.recipe.defaults import trains_as

SIBLINGS = tuple(name for name in edition_names() if trains_as(name))
FAMILIES = tuple(name for name in edition_names() if name not in SIBLINGS)
ZOO = tuple(name for name in zoo.EDITIONS if name in FAMILIES)
CHAINS = tuple(
    name
    for name in FAMILIES
    if name not in zoo.EDITIONS and len(load_network(name).input_shape) == 3
)
"""Of images."""
