{{- define "call-consumer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "call-consumer.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "call-consumer.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "call-consumer.labels" -}}
helm.sh/chart: {{ include "call-consumer.chart" . }}
{{ include "call-consumer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A pod's own: no version of the chart, so that an upgrade of the chart alone restarts nothing. */}}
{{- define "call-consumer.podLabels" -}}
{{ include "call-consumer.selectorLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "call-consumer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "call-consumer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "call-consumer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "call-consumer.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "call-consumer.image" -}}
{{- .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* What pods see as environment variables. */}}
{{- define "call-consumer.config" -}}
CALLS_RABBITMQ_URL_FILE: /etc/call-consumer/secrets/rabbitmq-url
CALLS_BITRIX24_URL_FILE: /etc/call-consumer/secrets/bitrix24-url
{{- if .Values.settings.oauthClientId }}
CALLS_OAUTH_CLIENT_SECRET_FILE: /etc/call-consumer/secrets/oauth-client-secret
{{- end }}
{{- if eq .Values.ledger.kind "sqlite" }}
CALLS_LEDGER_URL: sqlite:////var/lib/call-consumer/ledger.db
{{- else }}
CALLS_LEDGER_URL_FILE: /etc/call-consumer/secrets/ledger-url
{{- end }}
{{- range $name, $value := .Values.settings }}
CALLS_{{ $name | snakecase | upper }}: {{ kindIs "string" $value | ternary $value ($value | toJson | trimAll "[]") | quote }}
{{- end }}
{{- end }}

{{/* How a pod finds the addresses of hosts. */}}
{{- define "call-consumer.names" -}}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
