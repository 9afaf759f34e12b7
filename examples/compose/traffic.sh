# Calls a model of each kind, plain and streamed, until it is ended.
call() {
  curl --silent --output /dev/null --max-time 20 "$OPENAI_BASE_URL/chat/completions" \
    --header "authorization: Bearer $OPENAI_API_KEY" --header 'content-type: application/json' \
    --data "{\"model\": \"$1\", \"stream\": $2, \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}"
  sleep 0.25
}
while true; do
  for model in chat unsteady; do
    call "$model" false
    call "$model" true
  done
done
