# A target for each phase, such as `snakemake ablate@smollm2`; dvc.yaml has a stage each.
from common.recorded import WITHOUT_TOP_TOKENS


def made_on_the_way(model):
    """What a model's phases make besides what their targets name, without shards, which their indices list."""
    drawn = drawn_tokens("{ablation}").values()
    return [
        *expand(rules.cut_prompts.output, model=model),
        *expand(rules.find_parts.output, model=model),
        *(
            []
            if without_top_tokens()
            else expand(rules.rank_tokens.output, model=model)
        ),
        *expand(drawn, model=model, ablation=ABLATIONS),
        *expand(rules.choose_heads.output, model=model),
    ]


def without_top_tokens():
    """Whether the store lacks the study's top tokens: they are made when something reads them."""
    files = {Path(path).resolve() for path in workflow.configfiles}
    return any(
        Path(workflow.basedir, path).resolve() in files for path in WITHOUT_TOP_TOKENS
    )


def all_of_models():
    """Every result of every model but shards: what is missing is made again."""
    return [
        path
        for model in MODELS
        for path in [
            *made_on_the_way(model),
            *(
                path
                for phase in ("clean", "ablate", "experiments", "tables")
                for path in getattr(rules, f"{phase}@{model}").input
            ),
        ]
    ]


rule documents:
    input:
        rules.sample_documents.output,


for model in MODELS:

    rule:
        name:
            f"clean@{model}"
        input:
            # Not the tensors beside it: a store may lack them, and they are made when something reads them.
            expand(rules.rank_tokens.output.provenance, model=model),
            expand(rules.place_tokens.output, model=model),
            expand(precision_report(), model=model),

    rule:
        name:
            f"ablate@{model}"
        input:
            expand(rules.gather_sweep.output, model=model, ablation=ABLATIONS),

    rule:
        name:
            f"experiments@{model}"
        input:
            expand(rules.gather_experiment.output, model=model, experiment=EXPERIMENTS),

    rule:
        name:
            f"tables@{model}"
        input:
            expand(rules.decompose.output, model=model),
            expand(rules.map_repair.output, model=model),
            expand(
                table("{name}"),
                model=model,
                name=[name for e in EXPERIMENTS.values() for name in e.tables],
            ),


rule claims:
    input:
        rules.summarise.output,
        rules.judge_claims.output,
        [
            path
            for model in RELEASED
            for path in expand(rules.compare_published.output, model=model)
        ],
