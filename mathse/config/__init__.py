"""Settings: a typed schema, Hydra groups on top, and one strict reading that names every mistake at once.

schema     the two programs' settings and the options of each group; their sections stand in backbones, data, teachers,
           judges, generators, fits, evolution and evaluation: names, defaults, ranges, descriptions
setting    the marks beside a field that pydantic does not have: an option of a group, a setting that is followed, a
           value that changes no result
options    what conf/ offers: groups and their options
trust      which classes may be imported because a file names them
sections   the class of each section, and the values where nothing is set
mistakes   pydantic's list of errors -> a sentence for each mistake
rules      what must hold between settings, a file for each part of them
parse      all of it: a composed config -> TrainConfig, or one ConfigError; also build(), an option's object from
           its settings
register   what Hydra must know beforehand: the ConfigStore and the resolvers
overrides  what Hydra says of a command line, in our words
hydra_calls  what Hydra would call for a plan of somebody else's settings
"""

from mathse.config.parse import build, flatten, make_settings, parse, parse_recorded, replace_values

__all__ = ["build", "flatten", "make_settings", "parse", "parse_recorded", "replace_values"]
