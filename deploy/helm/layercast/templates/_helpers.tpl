{{- define "layercast.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "layercast.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* Takes (list ROOT COMPONENT). */}}
{{- define "layercast.selector" -}}
app.kubernetes.io/name: layercast
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "layercast.labels" -}}
{{ include "layercast.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- /* Of the Secret with the join token; empty with `open`. */}}
{{- define "layercast.joinSecret" -}}
{{- if not .Values.open -}}
{{ .Values.joinToken.existingSecret | default (printf "%s-join" (include "layercast.name" .)) }}
{{- end }}
{{- end }}

{{- /* Whether a hook asks the supernode for the token. */}}
{{- define "layercast.makesToken" -}}
{{- if not (or .Values.open .Values.joinToken.existingSecret) }}yes{{ end }}
{{- end }}

{{- /* Whether a hook takes back what was done to the nodes' runtimes. */}}
{{- define "layercast.undoes" -}}
{{- if and (ne .Values.client.runtime "none") .Values.client.undo }}yes{{ end }}
{{- end }}

{{- define "layercast.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "layercast.unprivileged" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* The folder that has all of the runtime's files. */}}
{{- define "layercast.runtimeFolder" -}}
{{- get (dict "containerd" "/etc/containerd" "crio" "/etc/containers" "k3s" "/etc/rancher/k3s") .Values.client.runtime }}
{{- end }}
