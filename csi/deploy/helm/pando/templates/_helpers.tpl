{{- define "pando.labels" -}}
app.kubernetes.io/name: pando-csi
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pando.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "pando.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A sidecar on the driver's socket: a dict of top, name, image and args. */}}
{{- define "pando.sidecar" -}}
- name: {{ .name }}
  image: "{{ .top.Values.sidecars.registry }}/{{ .image }}"
  args:
    - --csi-address=/csi/csi.sock
    {{- range .args }}
    - {{ . }}
    {{- end }}
  securityContext:
    {{- include "pando.restricted" . | nindent 4 }}
  volumeMounts:
    - name: socket
      mountPath: /csi
{{- end }}
