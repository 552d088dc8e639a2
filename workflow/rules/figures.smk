# Figures, drawn from tables only: one rule for those of all models, one for those of each model.

STUDY_FIGURES = {"E1": "self-repair-by-depth", "E5": "norm-share-by-depth"}
MODEL_FIGURES = {"E2": "effect-against-change", "E6": "breakdown-by-head"}


def study_figures():
    """Every figure of the study, in every format."""
    stems = [f"{FIGURES}/{key}-{name}" for key, name in STUDY_FIGURES.items()]
    stems += [
        f"{FIGURES}/{model}/{key}-{name}"
        for model in MODELS
        for key, name in MODEL_FIGURES.items()
    ]
    return [f"{stem}.{ending}" for stem in stems for ending in FORMATS]


def figure_files(stem, caption):
    """Named outputs of one figure; the SVG goes into Snakemake's report."""
    files = {ending: f"{stem}.{ending}" for ending in FORMATS}
    files["svg"] = report(
        files["svg"], category="Figures", caption=f"../report/{caption}.rst"
    )
    return files


for key, name in STUDY_FIGURES.items():

    rule:
        name:
            f"draw_{key}"
        input:
            heads=expand(rules.decompose.output.heads, model=MODELS),
            code=code_of("draw"),
        output:
            **figure_files(f"{FIGURES}/{key}-{name}", key),
        log:
            f"{LOGS}/draw_{key}.log",
        conda:
            "../envs/selfrepair.yaml"
        threads: 1
        params:
            figure=key,
        script:
            "../scripts/draw.py"


for key, name in MODEL_FIGURES.items():

    rule:
        name:
            f"draw_{key}"
        input:
            heads=[rules.decompose.output.heads],
            code=code_of("draw"),
        output:
            **figure_files(f"{FIGURES}/{{model}}/{key}-{name}", key),
        log:
            f"{LOGS}/{{model}}/draw_{key}.log",
        conda:
            "../envs/selfrepair.yaml"
        threads: 1
        params:
            figure=key,
        script:
            "../scripts/draw.py"
