{{/* The head of a custom resource; of a list: the context, the kind, and the end of the name. */}}
{{- define "call-consumer.topologyHead" -}}
{{- $ := index . 0 }}
apiVersion: rabbitmq.com/v1beta1
kind: {{ index . 1 }}
metadata:
  name: {{ include "call-consumer.fullname" $ }}-{{ index . 2 }}
  labels:
    {{- include "call-consumer.labels" $ | nindent 4 }}
  annotations:
    # Without it the operator would delete the queues, and all that waits in them.
    helm.sh/resource-policy: keep
spec:
  rabbitmqClusterReference:
    {{- toYaml $.Values.topology.rabbitmqClusterReference | nindent 4 }}
{{- end }}

{{/* The users that a Secret is named for. */}}
{{- define "call-consumer.topologyUsers" -}}
{{- if .Values.topology.enabled }}
{{- range $user, $secret := .Values.topology.users }}
{{- with $secret }}
- {{ $user }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
