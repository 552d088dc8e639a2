# A target for each phase, such as `snakemake ablate@smollm2`; dvc.yaml has a stage each.


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
            f"check@{model}"
        input:
            expand(rules.check_sweep.output, model=model),

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
            expand(rules.tabulate_training.output, model=model),
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
