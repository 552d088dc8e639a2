# Every result of a study, named, so that what is missing is made again.
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
        *expand(rules.choose_pairs.output, model=model),
        *expand(rules.train_constants.output, model=model),
        *expand(rules.write_narrow_prompts.output, model=model),
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
                for phase in ("clean", "ablate", "check", "experiments", "tables")
                for path in getattr(rules, f"{phase}@{model}").input
            ),
        ]
    ]
