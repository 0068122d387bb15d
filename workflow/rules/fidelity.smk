"""How faithful what engines draw is: to the layouts asked for, and to the real images.

Asked for by name: <results>/tables/fidelity.csv, all sets of the run in one table. A study with rows of all
engines that `side_by_side` names, or whoever asks for it, makes <results>/figures/layouts_<data set>.png, the same
layouts as those engines draw them. Both want the section `fidelity` of the scale.
"""


rule fidelity:
    input:
        dataset=jobs.dataset,
        shards=jobs.labels,
        images=jobs.shard_images,
        detections=fidelity_jobs.detections,
        pretrained=fidelity_jobs.models,
    output:
        measures="<results>/synthetic/{dataset}/{engine}/fidelity.json",
        record="<results>/synthetic/{dataset}/{engine}/fidelity.json.record.json",
    log:
        "<logs>/fidelity/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/fidelity/{dataset}/{engine}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("measure").threads
    resources:
        mem_mb=jobs.memory("measure"),
        runtime=jobs.runtime("measure"),
        gpu=jobs.needs("measure").gpu,
    params:
        job=fidelity_jobs.measure,
        device=device,
    message:
        "Measure how faithful what {wildcards.engine} drew for {wildcards.dataset} is"
    shell:
        "python -m gen4det.stages.fidelity --settings {params.job:q} --dataset {input.dataset:q}"
        " --shards {input.shards:q} --detections {input.detections:q} --output {output.measures:q}"
        " --device {params.device}"
        " 2>&1 | tee_log {log:q}"


rule fidelity_table:
    input:
        sets=fidelity_jobs.sets,
        measures=fidelity_jobs.measures,
        ceilings=fidelity_jobs.ceilings,
    output:
        csv=report(
            "<results>/tables/fidelity.csv",
            caption="../report/fidelity.rst",
            category="Fidelity",
            labels={"page": "table"},
        ),
        markdown="<results>/tables/fidelity.md",
        pdf="<results>/figures/fidelity.pdf",
        png=report(
            "<results>/figures/fidelity.png",
            caption="../report/fidelity.rst",
            category="Fidelity",
            labels={"page": "figure"},
        ),
        record="<results>/tables/fidelity.csv.record.json",
    log:
        "<logs>/fidelity_table.log",
    benchmark:
        "<benchmarks>/fidelity_table.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=fidelity_jobs.table,
        rows=fidelity_jobs.rows,
    message:
        "Table of fidelity"
    shell:
        "python -m gen4det.stages.fidelity_table --settings {params.job:q} --rows {params.rows:q}"
        " --output {output.csv:q} --figure {output.pdf:q}"
        " 2>&1 | tee_log {log:q}"


rule layout_page:
    input:
        dataset=jobs.dataset,
        shards=fidelity_jobs.page_sets,
        images=fidelity_jobs.page_images,
        detections=fidelity_jobs.page_detections,
    output:
        pdf="<results>/figures/layouts_{dataset}.pdf",
        png=report(
            "<results>/figures/layouts_{dataset}.png",
            caption="../report/fidelity.rst",
            category="Fidelity",
            labels={"page": "layouts of {dataset}"},
        ),
        record="<results>/figures/layouts_{dataset}.pdf.record.json",
    log:
        "<logs>/layout_page/{dataset}.log",
    benchmark:
        "<benchmarks>/layout_page/{dataset}.tsv"
    conda:
        "../../envs/analyse.yaml"
    threads: jobs.needs("plot").threads
    resources:
        mem_mb=jobs.memory("plot"),
        runtime=jobs.runtime("plot"),
    params:
        job=fidelity_jobs.page,
    message:
        "The same layouts of {wildcards.dataset} as several engines draw them"
    shell:
        "python -m gen4det.stages.layout_page --settings {params.job:q} --dataset {input.dataset:q}"
        " --shards {input.shards:q} --detections {input.detections:q} --output {output.pdf:q}"
        " 2>&1 | tee_log {log:q}"
