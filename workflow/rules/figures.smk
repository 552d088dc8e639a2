# Figures, drawn from tables only: one rule for those of all models, one for those of each model.


def study_figures():
    """Every figure of the study, in every format."""
    stems = {
        figure_stem(key, model)
        for key in FIGURE_TABLES
        for model in (PUBLISHED if key == "published" else MODELS)
    }
    return [f"{stem}.{ending}" for stem in sorted(stems) for ending in FORMATS]


def figure_files(key):
    """Named outputs of one figure; the SVG goes into Snakemake's report."""
    stem = figure_stem(key, "{model}")
    files = {ending: f"{stem}.{ending}" for ending in FORMATS}
    files["svg"] = report(
        files["svg"], category="Figures", caption=f"../report/{key}.rst"
    )
    return files


def figure_tables(key):
    """The tables that a figure is drawn from; of all models for a figure of the study."""
    paths = {
        table: f"{RESULTS}/{{model}}/{table}.parquet" for table in FIGURE_TABLES[key]
    }
    if key in STUDY_FIGURES:
        return {table: expand(path, model=MODELS) for table, path in paths.items()}
    return {table: [path] for table, path in paths.items()}


for key in FIGURE_TABLES:

    rule:
        name:
            f"draw_{key}"
        input:
            **figure_tables(key),
            code=code_of("draw"),
        output:
            **figure_files(key),
        log:
            (
                f"{LOGS}/draw_{key}.log"
                if key in STUDY_FIGURES
                else f"{LOGS}/{{model}}/draw_{key}.log"
            ),
        localrule: True
        conda:
            "../envs/selfrepair.yaml"
        threads: 1
        params:
            figure=key,
            tables=list(FIGURE_TABLES[key]),
        script:
            "../scripts/draw.py"
