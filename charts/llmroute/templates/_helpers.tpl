{{- define "llmroute.labels" -}}
app.kubernetes.io/part-of: llmroute
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "llmroute.selector" -}}
app.kubernetes.io/part-of: llmroute
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "llmroute.image" -}}
{{- $image := index .root.Values.image .name -}}
{{- $name := printf "%s/%s" .root.Values.image.registry $image.name -}}
{{- if $image.digest }}{{ $name }}@{{ $image.digest }}{{ else }}{{ $name }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* A file of ours, its objects in the release's namespace. The Namespace is Helm's to make (--create-namespace). */}}
{{- define "llmroute.file" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- range splitList "\n---\n" (.root.Files.Get .file) }}
{{- $document := replace "llmroute-system" $namespace . | fromYaml }}
{{- if and $document (ne $document.kind "Namespace") }}
---
{{ toYaml $document }}
{{- end }}
{{- end }}
{{- end }}

{{- define "llmroute.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "llmroute.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "llmroute.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Makes a PrometheusRule ours: its pages where the values say they are, and no alert about what is not installed. */}}
{{- define "llmroute.ownRules" -}}
{{- $groups := list }}
{{- range .rule.spec.groups }}
{{- if or $.root.Values.injector.enabled (ne .name "llmroute-injector") }}{{ $groups = append $groups . }}{{ end }}
{{- range $rule := .rules }}
{{- if .alert }}
{{- $_ := unset .annotations "runbook_url" }}
{{- with $.root.Values.monitoring.runbookUrl }}{{ $_ := set $rule.annotations "runbook_url" (replace "{name}" $rule.alert .) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set .rule.spec "groups" $groups }}
{{- end }}
