"""``python -m alexsim_kernels.bench.card``: all that a card is asked, in one command.

Parts run one after another, each in a process of its own, so that what one breaks (a context, a
library, its box of time) is no concern of the others'. A part is a module with a function
``rows(job)`` that yields ``Row``s; ``parts.PARTS`` names them.
"""
