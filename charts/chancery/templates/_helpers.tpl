{{- define "chancery.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* 52 characters leave room for "-operator" within the 63 of a label. */}}
{{- define "chancery.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "chancery.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of what is not in a namespace: releases of one name in several namespaces stay apart. */}}
{{- define "chancery.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "chancery.fullname" .) -}}
{{- end -}}

{{- define "chancery.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "chancery.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: chancery
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What selects the pods of a component: (dict "root" $ "component" "server"). */}}
{{- define "chancery.selector" -}}
app.kubernetes.io/name: {{ include "chancery.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "chancery.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.name -}}
{{- $account.name -}}
{{- else if $account.create -}}
{{- printf "%s-%s" (include "chancery.fullname" .root) .component -}}
{{- else -}}
{{- fail (printf "%s.serviceAccount.create is false and %s.serviceAccount.name is empty: name the ServiceAccount to run with. (The namespace's default one is shared by other pods.)" .component .component) -}}
{{- end -}}
{{- end -}}

{{- define "chancery.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The file that --config names. */}}
{{- define "chancery.settings" -}}
environment: {{ .Values.environment | quote }}
issuer: {{ .Values.issuer | quote }}
operatorNamespace: {{ .Release.Namespace | quote }}
{{- range $part := list "tokens" "secrets" "jwks" "serving" "throttle" "revocation" "providers" "users" "legalEntities" "policy" "claims" }}
{{- $values := index $.Values $part }}
{{- range $span := list "longestRotationInterval" "shortestSecretRotationInterval" "deviceDefaultTtl" "agentDefaultTtl" }}
{{- if not (index $values $span) }}
{{- /* Not set: to the program an empty text is no duration. */}}
{{- $values = omit $values $span }}
{{- end }}
{{- end }}
{{- if not (index $values "forwardedHeader") }}
{{- $values = omit $values "forwardedHeader" }}
{{- end }}
{{ $part }}:
  {{- toYaml $values | nindent 2 }}
{{- end }}
{{- with .Values.tiers }}
tiers:
  {{- range $name, $tier := . }}
  {{ $name | quote }}:
    draft: {{ default false $tier.draft }}
    entitlements:
      {{- range $id, $of := $tier.entitlements }}
      {{ $id }}:
        {{- if $of.unlimited }}
        unlimited: true
        {{- else }}
        {{- /* Numbers reach templates as floats, which toYaml would write as 5e+06. */}}
        limit: {{ int64 $of.limit }}
        {{- end }}
        {{- with $of.timeIntervalBound }}
        timeIntervalBound: {{ . }}
        {{- end }}
      {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What can not be said by the schema, as sentences. */}}
{{- define "chancery.check" -}}
{{- if not .Values.issuer -}}
{{- fail "issuer is not set. It is the URL that stands in every token as iss, and under which verifiers find the JWKS: --set issuer=https://id.example.com" -}}
{{- end -}}
{{- if and .Values.tls.existingSecret .Values.tls.behindProxy -}}
{{- fail "tls.existingSecret and tls.behindProxy are both set. Set the first if the pods terminate TLS, or the second if a proxy in front does." -}}
{{- end -}}
{{- if not (or .Values.tls.existingSecret .Values.tls.behindProxy) -}}
{{- fail "Nobody terminates TLS, and client secrets would cross the network in the clear. Set tls.existingSecret to the name of a Secret with tls.crt and tls.key, or tls.behindProxy=true if a proxy in front terminates TLS." -}}
{{- end -}}
{{- $least := add .Values.server.drainDelaySeconds 26 -}}
{{- if lt (int .Values.server.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "server.terminationGracePeriodSeconds is %d, and the server takes up to %d seconds to end: server.drainDelaySeconds, 25 for requests under way, and one. Raise the first or lower server.drainDelaySeconds." (int .Values.server.terminationGracePeriodSeconds) $least) -}}
{{- end -}}
{{- end -}}

{{/* The parts of a pod that operator and server share: (dict "root" $ "component" …). */}}
{{- define "chancery.podMetadata" -}}
{{- $own := index .root.Values .component -}}
annotations:
  # A changed setting rolls the pods: the file is read at start.
  checksum/settings: {{ include "chancery.settings" .root | sha256sum }}
  {{- with $own.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- mergeOverwrite (dict) $own.podLabels (include "chancery.labels" .root | fromYaml) (include "chancery.selector" . | fromYaml) | toYaml | nindent 2 }}
{{- end -}}

{{- define "chancery.podSpec" -}}
{{- $own := index .root.Values .component -}}
serviceAccountName: {{ include "chancery.serviceAccountName" . }}
automountServiceAccountToken: true
# The variables that Kubernetes makes of Services begin with the Service's name, as ours do.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $own.terminationGracePeriodSeconds }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "chancery.container" -}}
{{- $own := index .root.Values .component -}}
image: {{ include "chancery.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with .root.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
