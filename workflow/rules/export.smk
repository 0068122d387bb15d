"""Synthetic sets for use elsewhere: COCO, YOLO, PASCAL VOC, Hugging Face imagefolder; `-merged` with the real images.

    snakemake --profile local results/miniature/exports/lvis/mosaicfusion/yolo-merged/export.json

The folder of export.json is the data set. Its other files are undeclared, so that an interrupted export goes on.
"""


rule export:
    input:
        dataset=jobs.dataset,
        synthetic="<results>/synthetic/{dataset}/{engine}/set.json",
        drawn=jobs.set_files,
        tables=jobs.quoted_tables,
    output:
        about="<results>/exports/{dataset}/{engine}/{layout}/export.json",
        record="<results>/exports/{dataset}/{engine}/{layout}.record.json",
    log:
        "<logs>/export/{dataset}/{engine}/{layout}.log",
    benchmark:
        "<benchmarks>/export/{dataset}/{engine}/{layout}.tsv"
    wildcard_constraints:
        layout=jobs.layouts,
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("data").threads
    resources:
        mem_mb=jobs.memory("data"),
        runtime=jobs.runtime("data"),
    params:
        job=jobs.export,
        tables=jobs.tables_about,
    message:
        "Export what {wildcards.engine} drew for {wildcards.dataset} as {wildcards.layout}"
    shell:
        "python -m gen4det.stages.export --settings {params.job:q} --dataset {input.dataset:q}"
        " --synthetic {input.synthetic:q} --output {output.about:q} {params.tables}"
        " 2>&1 | tee_log {log:q}"
