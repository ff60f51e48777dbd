"""The editions before VGG-16, for tests of what reads layer after layer, or trains every edition.

``test_zoo`` and ``test_network_zoo`` are for the others.
"""

from alexsim.editions import zoo
from alexsim.editions.load import edition_names

ZOO = tuple(getattr(zoo, name)().name for name in zoo.__all__)
CHAINS = tuple(name for name in edition_names() if name not in ZOO)
