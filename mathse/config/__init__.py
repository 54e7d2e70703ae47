"""Settings: a typed schema, Hydra groups on top, and one strict reading that names every mistake at once.

schema       settings of the two programs and the options of each group. The sections have files of their own:
             backbones, data, task_domains, teachers, judges, generators, fits, evolution, evaluation
setting      marks of a field that pydantic does not have: an option of a group, a setting that follows another, a value
             that changes no result
options      the groups of conf/ and of a user's folder, and their options
trust        the classes that may be imported because a file names them
sections     the settings class of each section, and the values of settings that nobody sets
mistakes     pydantic's list of errors as sentences
rules        rules between settings, a file for each part of the settings
parse        a composed config -> TrainConfig, or one ConfigError; ``build`` makes an option's object from its settings
register     the ConfigStore and the resolvers of Hydra
programs     the config that a command line is composed onto
overrides    the mistakes of a command line, with the mistakes at which Hydra stops
hydra_calls  the classes that Hydra would call for a plan of foreign settings
compose      a command line -> settings, run folder, help page
"""

from mathse.config.parse import build, flatten, make_settings, parse, parse_recorded, replace_values

__all__ = ["build", "flatten", "make_settings", "parse", "parse_recorded", "replace_values"]
