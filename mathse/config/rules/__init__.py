"""What must hold between settings, checked before any weight is loaded.

A rule is a function from the bound config to a sentence for each mistake: key path, value, what is allowed, what to
pass instead. A file has the rules of one part of the settings; a new rule is written there, added to its list here and
has a test. A rule of both programs takes either config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mathse.config.rules import data, evaluation, fits, judges, models, run, serving, updates
from mathse.config.schema import EvaluateConfig, TrainConfig

Rule = Callable[[Any], Iterator[str]]

# In the order in which mistakes are listed.
RULES: dict[type, tuple[Rule, ...]] = {
    TrainConfig: (
        run.name_is_a_folder_name,
        fits.fits_have_one_length,
        fits.devices_work_together,
        run.device_memory_is_a_size,
        fits.qlora_can_run,
        fits.shards_are_of_whole_numbers,
        fits.frozen_parts_leave_one,
        fits.frozen_layers_are_of_a_part_that_trains,
        fits.kept_features_are_of_a_frozen_tower,
        fits.lora_scopes_exist,
        run.task_has_its_rows,
        updates.update_rows_are_a_student_s_own,
        updates.groups_can_be_compared,
        updates.policy_gradients_are_consistent,
        updates.online_updates_sample_here,
        data.data_is_there,
        data.task_domain_has_its_prompts,
        data.splits_are_the_set_s_own,
        data.mixture_says_how_much_of_each,
        data.shares_leave_problems_to_learn_from,
        data.licence_allows_training,
        data.benchmarks_to_keep_out_are_there,
        run.teacher_can_solve_the_data,
        serving.teacher_is_at_an_address,
        serving.servers_are_at_addresses,
        serving.students_are_served_somehow,
        serving.orm_is_served_somehow,
        serving.vllm_can_be_used,
        run.greedy_paths_are_one_a_problem,
        run.rounds_can_sample_so,
        judges.judges_are_known,
        judges.votes_have_samples,
        judges.checked_steps_can_be_checked,
        judges.own_judges_have_their_settings,
        judges.judge_checkpoint_is_a_model,
        judges.binary_orm_solves_nothing,
        judges.orm_sees_one_answer,
        judges.orm_has_its_rows,
        judges.orm_students_have_sizes,
        models.backbone_weights_are_somewhere,
        models.backbone_folder_is_of_its_family,
        models.backbone_sizes_fit,
        models.a_model_of_text_alone_gets_no_pictures,
        run.branch_names_its_sources,
    ),
    EvaluateConfig: (
        run.name_is_a_folder_name,
        evaluation.something_is_evaluated,
        serving.evaluation_starts_no_engine,
        serving.vllm_can_be_used,
        evaluation.evaluated_files_exist,
        evaluation.benchmarks_are_chosen,
        evaluation.samples_can_be_chosen_from,
        evaluation.an_orm_test_stands_alone,
        evaluation.an_llm_is_somewhere,
        fits.devices_work_together,
        run.device_memory_is_a_size,
        data.data_is_there,
        data.task_domain_has_its_prompts,
        data.shares_leave_problems_to_learn_from,
        models.backbone_weights_are_somewhere,
        models.backbone_folder_is_of_its_family,
        models.backbone_sizes_fit,
    ),
}
