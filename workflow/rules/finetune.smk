"""Engines that learn something before they draw; training-free engines have no job here.

From the dataset's descriptor to <results>/engines/<dataset>/<engine>/model. Checkpoints lie in the undeclared
folder `work` beside it.
"""


rule finetune:
    input:
        dataset=jobs.dataset,
        pretrained=jobs.drawing_models,
    output:
        model=directory("<results>/engines/{dataset}/{engine}/model"),
        record="<results>/engines/{dataset}/{engine}/model.record.json",
    log:
        "<logs>/finetune/{dataset}/{engine}.log",
    benchmark:
        "<benchmarks>/finetune/{dataset}/{engine}.tsv"
    conda:
        "../../envs/compute.yaml"
    threads: jobs.needs("finetune").threads
    resources:
        mem_mb=jobs.memory("finetune"),
        runtime=jobs.runtime("finetune"),
        gpu=jobs.needs("finetune").gpu,
    params:
        job=jobs.finetune,
        device=device,
        helpers=helpers,
    message:
        "Fit {wildcards.engine} to {wildcards.dataset}"
    shell:
        "python -m gen4det.stages.finetune --settings {params.job:q} --dataset {input.dataset:q}"
        " --output {output.model:q} --device {params.device} --workers {params.helpers}"
        " 2>&1 | tee_log {log:q}"
