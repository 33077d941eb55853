import boto3

ASK = {"modelId": "amazon.nova-pro-v1:0", "inferenceConfig": {"maxTokens": 20}}


def client(base):
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    return boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=base, **keys)


def says(text):
    return [{"role": "user", "content": [{"text": text}]}]


def plain(base):
    answer = client(base).converse(messages=says("How does water flow?"), **ASK)
    return answer["output"]["message"]["content"][0]["text"]


def words(stream):
    return (event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event)


def stream(base):
    return "".join(words(client(base).converse_stream(messages=says("How does water flow?"), **ASK)["stream"]))


def tools(base):
    schema = {"json": {"type": "object", "properties": {"city": {"type": "string"}}}}
    tools = {"tools": [{"toolSpec": {"name": "get_weather", "inputSchema": schema}}]}
    answer = client(base).converse(messages=says("The weather?"), toolConfig=tools, **ASK)
    call = answer["output"]["message"]["content"][0]["toolUse"]
    return f"{call['name']} {call['input']['city']}"


def abort(base):
    stream = client(base).converse_stream(messages=says("Speak slowly."), **ASK)["stream"]
    first = next(words(stream))
    stream.close()
    return first
