"""Pages on whole studies, to be handed on: one file each that needs nothing beside it.

snakemake --profile local pages
"""


rule study_page:
    input:
        metrics=jobs.metrics,
        others=page_jobs.inputs,
    output:
        page="<results>/reports/{study}/index.html",
        methods="<results>/reports/{study}/methods.md",
        bibliography="<results>/reports/{study}/references.bib",
        record="<results>/reports/{study}/index.html.record.json",
    log:
        "<logs>/study_page/{study}.log",
    benchmark:
        "<benchmarks>/study_page/{study}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=page_jobs.settings,
        metrics=jobs.metrics_by_arm,
        sets=page_jobs.sets,
        measures=page_jobs.measures,
        figures=page_jobs.figures,
        fits=page_jobs.fits,
    message:
        "Page on {wildcards.study}"
    shell:
        "python -m gen4det.stages.study_page --settings {params.job:q} --metrics {params.metrics:q}"
        " --synthetic {params.sets:q} --sets {params.measures:q} --figures {params.figures:q}"
        " --fits {params.fits:q} --output {output.page:q}"
        " 2>&1 | tee_log {log:q}"


rule pages:
    input:
        page_jobs.pages,
